package journal

import "slices"

// queue is an immutable list that grows at its end and shrinks at its start.
// All chunks but the last are full.
type queue[T any] struct {
	chunks [][]T
	skip   int // items of the first chunk that are gone
	length int
}

const chunkSize = 512

func (q queue[T]) at(i int) T {
	i += q.skip
	return q.chunks[i/chunkSize][i%chunkSize]
}

// push returns q with items at its end.
func (q queue[T]) push(items []T) queue[T] {
	q.length += len(items)
	chunks := make([][]T, len(q.chunks), len(q.chunks)+1+len(items)/chunkSize)
	copy(chunks, q.chunks)
	if n := len(chunks); n > 0 && len(chunks[n-1]) < chunkSize {
		last := chunks[n-1]
		take := min(chunkSize-len(last), len(items))
		grown := make([]T, 0, len(last)+take)
		chunks[n-1] = append(append(grown, last...), items[:take]...)
		items = items[take:]
	}
	for len(items) > 0 {
		take := min(chunkSize, len(items))
		chunks = append(chunks, append([]T(nil), items[:take]...))
		items = items[take:]
	}
	q.chunks = chunks
	return q
}

// drop returns q without its first n items, and keeps nothing of them alive.
func (q queue[T]) drop(n int) queue[T] {
	if n >= q.length {
		return queue[T]{}
	}
	q.length -= n
	q.skip += n
	q.chunks = q.chunks[q.skip/chunkSize:]
	q.skip %= chunkSize
	if q.skip > 0 {
		q.chunks = slices.Clone(q.chunks)
		first := make([]T, len(q.chunks[0]))
		copy(first[q.skip:], q.chunks[0][q.skip:])
		q.chunks[0] = first
	}
	return q
}
