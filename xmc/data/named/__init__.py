"""What sources share whose queries name their labels: filters, label tables, columns by name, tables in memory."""
