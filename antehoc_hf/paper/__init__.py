"""The ante-hoc paper's tables and figures, computed again: our numbers next to the paper's and the controls'."""
