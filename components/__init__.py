"""The KFP steps: thin, typed functions over the framework, one folder each."""
