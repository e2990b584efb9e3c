"""What both services share: lifecycle, interceptors, identity, errors, upload reading, settings, logs."""
