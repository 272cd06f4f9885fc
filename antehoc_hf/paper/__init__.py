"""The ante-hoc paper's tables and figures, computed again: our numbers beside the paper's and the controls'."""
