"""Where bytes are kept: the store's protocol, its two implementations, and the blob store.

This package knows bytes, ids, epochs, versions and seqs. It knows nothing of workflows and imports
no other package of Harmonia.
"""
