"""docs/guidance.md, its pictures and the README's table: generated from the results in studies/small/, never typed."""
