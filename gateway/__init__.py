"""The head-end: sessions with terminals, the midnight reading, and the commands of people and billing."""
