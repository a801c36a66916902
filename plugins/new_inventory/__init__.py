"""Write an inventory from answers: `questions` is what is asked, `write` makes one of the examples this site's."""
