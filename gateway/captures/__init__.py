"""Frames as people keep them: hex on the command line and in log files, packets in pcap and pcapng files."""
