"""The server: a run answered over HTTP, with changes of labels that survive a crash."""
