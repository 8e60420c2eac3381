"""Benchmarks: Harmonia, raw Ray and other engines, side by side in one run."""
