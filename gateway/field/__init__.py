"""What an engineer in front of a meter uses: no gateway, no database, one line, and nothing but reads."""
