"""Which option a reply chooses, read from its text. Pure: the same text gives the same answer on any machine, without a model.

words     in which words replies answer, for each language of `prompts/templates.py`, which has the words that we send
reply     a reply as rules read it: labels, options, what is denied
rules     each looks for one form of answer; strict before lenient
verdict   the rules in their order, and refusals
paper     the rules of the published evaluation
"""
