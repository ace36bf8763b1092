"""Shadow paging: the tables that the processor walks, kept in step with the guest's own."""
