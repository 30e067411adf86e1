"""The controller: sample, submit, watch and report the trials of a study."""
