"""What the values of a field are: their kinds, spellings, and which texts are no observation."""
