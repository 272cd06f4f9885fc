"""A finished classifier, unchanged, with a map of its own: from unlabelled images to a folder that can be shared."""

from antehoc_hf.attaching.images import Pictures, load_pictures
from antehoc_hf.attaching.run import Attached, AttachOptions, attach
from antehoc_hf.attaching.verdict import Verdict

__all__ = ["AttachOptions", "Attached", "Pictures", "Verdict", "attach", "load_pictures"]
