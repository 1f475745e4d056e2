"""Measurements that back the figures in the README: each prints machine, versions, runs and spread."""
