"""Tests of vdsmd.ctl."""
