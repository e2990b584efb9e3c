"""What the gateway knows of patients, orders, studies and uploads. Plain Python."""
