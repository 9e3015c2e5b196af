"""Reports that people and CI read: one HTML page (``page``), JUnit XML (``junit``), written in one go (``writing``)."""
