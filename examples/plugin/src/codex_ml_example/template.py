"""A template: how a record with an instruction and perhaps an input becomes the text before its completion."""

QUESTION = {
    "prompt": "Question: {instruction}\nAnswer: ",
    "prompt_with_input": "Question: {instruction}\nGiven: {input}\nAnswer: ",
}
