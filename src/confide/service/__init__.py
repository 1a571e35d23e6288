"""What Confide does, for any caller that has a principal: no HTTP, no SQL, no cipher."""
