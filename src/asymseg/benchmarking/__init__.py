"""What asymseg costs, beside its rivals, in the same process.

Written for CPUs and CUDA GPUs alike, and so far run on CPUs alone: what a GPU says has yet to be looked at.
"""
