"""A run folder: its results and logs as accuracy tables read them."""
