"""The digital twin: real SGD of emulated functions on a virtual clock."""
