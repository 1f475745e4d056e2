"""Q/GDW 376.1, master station to concentrator, both roles; with the frames of 130-2005 and 1376.1-2013."""
