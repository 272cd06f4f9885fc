"""The commands of the command line, one file each; `antehoc_hf.cli` calls them."""
