"""Schedules tried one after another, until one breaks the guest."""
