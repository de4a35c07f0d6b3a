"""The paper's claims, measured in the sandbox: jobs, what is asked of them, tables and plots."""
