"""Studies: arms x seeds of trainings, their evaluations and probes, and a report with paired intervals."""
