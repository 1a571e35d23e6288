"""What a config is and what may be done with it: no I/O, standard library only."""
