"""AWS: instance types, zones, list prices, commitments and spot prices of every enabled region."""
