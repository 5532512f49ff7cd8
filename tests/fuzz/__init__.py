"""Fuzzing: hostile and unlucky input for everything that reads what users give.

``make fuzz`` tries thousands of cases of every area, each area in a process of its own. The default
suite tries a short slice of each (``test_fuzz.py``). An area is a module with the names of
:class:`tests.fuzz.frame.Area`; ``areas.py`` lists them.
"""
