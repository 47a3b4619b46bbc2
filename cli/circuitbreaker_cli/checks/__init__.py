"""The checks of `doctor`: what each makes of the answers it is given. Pure."""
