"""What results of all systems share: report, files, canvas."""
