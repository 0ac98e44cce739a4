"""What is trained: one architecture per file, each a ``StagedNet`` of named stages."""
