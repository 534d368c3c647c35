"""Tests of vdsmd.host."""
