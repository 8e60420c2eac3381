"""Remote components: HTTP services that offer actions under the contract in the README.

The catalogue of a service is asked for once, by whoever starts Harmonia; all other processes are
handed it. Nothing here runs code of a service or trusts what it answers.
"""
