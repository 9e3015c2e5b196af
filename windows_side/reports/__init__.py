"""Pages and JUnit files of verification and benchmark."""
