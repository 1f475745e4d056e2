"""HTTP for people's tools and for machines: full on the unix socket, health and status only on TCP."""
