"""The commands of the command line, one file each, with two functions: `parse` reads the options and imports nothing
heavy, `run` does what they ask for.
"""
