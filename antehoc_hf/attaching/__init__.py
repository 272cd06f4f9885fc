"""A finished classifier, unchanged, with a map of its own: from unlabelled images to a folder that can be shared."""

from antehoc_hf.attaching.run import AttachOptions, attach

__all__ = ["AttachOptions", "attach"]
