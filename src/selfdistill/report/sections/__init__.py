"""The sections of the page: functions from the evidence to an `Element`, or None where there is nothing to say."""
