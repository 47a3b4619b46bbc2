"""What `simulate` plays: calls and policies read or made, a run of the rules over them, its report. Pure."""
