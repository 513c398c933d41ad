"""One member of each family, registered from outside of the package: each file here is all that a user writes to add one."""
