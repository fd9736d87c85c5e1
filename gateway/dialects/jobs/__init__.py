"""The job system's words: runs of jobs in a project, with dead letters, bulk actions and debug bundles."""
