"""For those who test Siren or extend it: a conformance suite for platforms, fakes, a tiny job, a reaper."""
