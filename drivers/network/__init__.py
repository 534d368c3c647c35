"""The network driver: from what an engine asks for to what the kernel does, and what is seen on the way.

    what is asked for    words, addresses, bandwidth, options: parts of request; legacy is for the older verbs
    what there is        netlink looks, kernel is what it sees, facts tells engines; watch notices, with patience
    what is wanted       model; merge leads to it from what runs and a request; devices, ways, rates, shares follow from it
    what is to be done   plan, with draft, going and acts: all of it pure
    how it is done       driver, the owner; work in worker threads, with change, store (the journal) and parts

It promises that only driver, model and errors are imported before the first answer.
"""
