"""One module per workload: which jobs it is made of, and what is measured of each."""
