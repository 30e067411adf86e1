"""Launch options other than running a study, one file per option."""
