// Package raftlog is the journal on hashicorp/raft: what it takes is on the
// disks of a majority of the voters, of which there may be one.
package raftlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/cluster/journal"
)

// Options says where a Journal is and with whom it talks.
type Options struct {
	Dir    string // of its own; made if need be
	Decode journal.Decoder
	Log    *slog.Logger
	// Transport reaches the other voters; nil: there are none, and this server
	// leads as soon as it is open.
	Transport raft.Transport
	Room      Room // without figures: those of DefaultRoom
	// SegmentSize is the size of the log's files; 0: 16 MB.
	SegmentSize int64
	// SnapshotBytes is how much is logged between two snapshots; 0: 64 MB.
	SnapshotBytes int64
}

// Journal implements [journal.Journal].
type Journal struct {
	log       *slog.Logger
	lock      *os.File
	room      *room
	disk      *diskLog
	ballot    *ballot
	machine   *machine
	raft      *raft.Raft
	notify    chan bool
	snapshots chan struct{} // asks for one
	closed    chan struct{}
	running   sync.WaitGroup
	once      sync.Once
	closeErr  error

	caughtUp atomic.Bool // leads, and the replica shows what earlier leaders committed

	mu    sync.Mutex // held while heard is called
	now   journal.Leadership
	heard []func(journal.Leadership)
}

var _ journal.Journal = (*Journal)(nil)

const (
	serverKey   = "ServerID"
	enqueueTime = 10 * time.Second
)

// Open opens the journal in o.Dir. The first server's is made there: it is its
// only voter.
func Open(o Options) (*Journal, error) {
	j, err := open(o, nil)
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", o.Dir, err)
	}
	return j, nil
}

// open lets tests reach the stores before raft does.
func open(o Options, prepare func(*Journal)) (_ *Journal, err error) {
	if o.Room.Bytes == 0 && o.Room.Percent == 0 && o.Room.Reserve == 0 {
		stat := o.Room.Stat
		o.Room = DefaultRoom()
		o.Room.Stat = stat
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = 16 << 20
	}
	if o.SnapshotBytes == 0 {
		o.SnapshotBytes = 64 << 20
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	j := &Journal{
		log:       o.Log,
		notify:    make(chan bool),
		snapshots: make(chan struct{}, 1),
		closed:    make(chan struct{}),
	}
	defer func() {
		if err != nil {
			j.closeStores()
		}
	}()
	if j.lock, err = lockFile(filepath.Join(o.Dir, "lock")); err != nil {
		return nil, err
	}
	if j.disk, err = openDiskLog(filepath.Join(o.Dir, "log"), o.SegmentSize, o.Log); err != nil {
		return nil, err
	}
	if j.ballot, err = openBallot(filepath.Join(o.Dir, "ballot"), o.Log); err != nil {
		return nil, err
	}
	j.room = newRoom(o.Room, o.Dir, o.Log)
	j.machine = &machine{
		decode: o.Decode, hub: journal.NewHub(journal.NewState(o.Decode)),
		every: o.SnapshotBytes, ask: j.snapshots,
	}
	if prepare != nil {
		prepare(j)
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(o.Dir, 2, raftLogger(o.Log))
	if err != nil {
		return nil, err
	}
	return j, j.start(o, snapshots)
}

func (j *Journal) start(o Options, snapshots raft.SnapshotStore) error {
	transport := o.Transport
	if transport == nil {
		_, alone := raft.NewInmemTransport("alone")
		alone.Connect(alone.LocalAddr(), alone)
		transport = alone
	}
	config, err := j.config()
	if err != nil {
		return err
	}
	if err := j.bootstrap(config, snapshots, transport); err != nil {
		return err
	}
	j.raft, err = raft.NewRaft(config, j.machine, j.disk, j.ballot, snapshots, transport)
	if err != nil {
		return err
	}
	j.running.Go(j.watch)
	j.running.Go(j.snapshot)
	if servers := j.raft.GetConfiguration().Configuration().Servers; len(servers) == 1 && servers[0].ID == config.LocalID {
		// Nobody else could lead: there is no reason to wait for a heartbeat.
		// From the second voter on an election takes its ordinary time.
		request := raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
			ProtocolVersion: config.ProtocolVersion, ID: []byte(config.LocalID),
			Addr: transport.EncodePeer(config.LocalID, transport.LocalAddr()),
		}}
		err := transport.TimeoutNow(config.LocalID, transport.LocalAddr(), &request, new(raft.TimeoutNowResponse))
		if err != nil {
			j.log.Warn("journal: the election waits for its time-out", "error", err)
		}
	}
	return nil
}

func (j *Journal) config() (*raft.Config, error) {
	id, err := j.ballot.Get([]byte(serverKey))
	if err != nil {
		return nil, err
	}
	if id == nil {
		id = []byte(uuid.NewString())
		if err := j.ballot.Set([]byte(serverKey), id); err != nil {
			return nil, err
		}
	}
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(id)
	c.HeartbeatTimeout = 500 * time.Millisecond
	c.ElectionTimeout = 500 * time.Millisecond
	c.LeaderLeaseTimeout = 250 * time.Millisecond
	c.SnapshotInterval = 30 * time.Second
	c.SnapshotThreshold = 8192
	c.TrailingLogs = 256 // a server further behind gets a snapshot, which holds the past as well
	c.NotifyCh = j.notify
	c.Logger = raftLogger(j.log)
	return c, nil
}

// bootstrap makes this server the only voter of a new journal. What is left of
// an attempt that did not get to the log's first record is no journal yet.
func (j *Journal) bootstrap(c *raft.Config, snapshots raft.SnapshotStore, transport raft.Transport) error {
	taken, err := snapshots.List()
	if err != nil {
		return err
	}
	last, err := j.disk.LastIndex()
	if err != nil || last > 0 || len(taken) > 0 {
		return err
	}
	if err := j.ballot.SetUint64([]byte(termKey), 0); err != nil {
		return err
	}
	return raft.BootstrapCluster(c, j.disk, j.ballot, snapshots, transport, raft.Configuration{
		Servers: []raft.Server{{Suffrage: raft.Voter, ID: c.LocalID, Address: transport.LocalAddr()}},
	})
}

// Propose implements [journal.Journal].
func (j *Journal) Propose(ctx context.Context, e journal.Entry) error {
	data, err := journal.EncodeEntry(e)
	if err != nil {
		return err
	}
	if err := j.room.check(len(data), e.Frees()); err != nil {
		return err
	}
	if j.isClosed() {
		return journal.ErrNotLeader
	}
	future := j.raft.Apply(data, enqueueTime)
	err = j.wait(ctx, future)
	switch {
	case err == nil:
		refused, _ := future.Response().(error)
		return refused
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress),
		errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: %w", journal.ErrNotLeader, err)
	}
	return fmt.Errorf("%w: %w", journal.ErrUnknownOutcome, err)
}

// wait returns what became of f, or why nobody waits for it any longer. (raft
// never answers some of the futures that it gets around its shutdown.)
func (j *Journal) wait(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-j.closed:
		return raft.ErrRaftShutdown
	}
}

// Hub implements [journal.Journal].
func (j *Journal) Hub() *journal.Hub { return j.machine.hub }

// Barrier implements [journal.Journal].
func (j *Journal) Barrier(ctx context.Context) error {
	return lead(j.wait(ctx, j.raft.Barrier(enqueueTime)))
}

// VerifyLeader implements [journal.Journal]. A leader that has just been elected
// may not have applied yet what was committed before it.
func (j *Journal) VerifyLeader(ctx context.Context) error {
	if !j.caughtUp.Load() {
		return j.Barrier(ctx)
	}
	return lead(j.wait(ctx, j.raft.VerifyLeader()))
}

func lead(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", journal.ErrNotLeader, err)
}

// Leadership implements [journal.Journal]. A leader is announced once its
// replica shows all that was committed before. f must not call Leadership.
func (j *Journal) Leadership(f func(journal.Leadership)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.heard = append(j.heard, f)
	f(j.now)
}

func (j *Journal) announce(l journal.Leadership) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.now == l || j.isClosed() {
		return
	}
	j.now = l
	j.caughtUp.Store(l.Leader)
	for _, f := range j.heard {
		f(l)
	}
}

// watch turns raft's notices into announcements.
func (j *Journal) watch() {
	reign := 0 // counts the notices, so that a late barrier is known as such
	type reached struct {
		reign int
		err   error
	}
	barriers := make(chan reached, 1)
	for {
		select {
		case leads := <-j.notify:
			reign++
			if !leads {
				j.announce(journal.Leadership{})
				continue
			}
			of := reign
			j.running.Go(func() { // not here: raft may wait for the next notice to be taken
				err := j.wait(context.Background(), j.raft.Barrier(0)) // which raft forgets when it shuts down
				select {
				case barriers <- reached{of, err}:
				case <-j.closed:
				}
			})
		case b := <-barriers:
			if b.err == nil && b.reign == reign {
				j.announce(journal.Leadership{Leader: true, Epoch: journal.Epoch{
					Incarnation: j.Hub().Snapshot().Incarnation(), Term: j.raft.CurrentTerm(),
				}})
			}
		case <-j.closed:
			return
		}
	}
}

// snapshot takes one whenever enough was logged.
func (j *Journal) snapshot() {
	for {
		select {
		case <-j.snapshots:
			if err := j.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && !j.isClosed() {
				j.log.Warn("journal: no snapshot could be taken, the log keeps growing", "error", err)
			}
		case <-j.closed:
			return
		}
	}
}

func (j *Journal) isClosed() bool {
	select {
	case <-j.closed:
		return true
	default:
		return false
	}
}

// Close implements [journal.Journal].
func (j *Journal) Close() error {
	j.once.Do(func() {
		close(j.closed)
		j.ballot.release()
		j.closeErr = j.raft.Shutdown().Error()
		j.running.Wait()
		j.closeErr = errors.Join(j.closeErr, j.closeStores())
	})
	return j.closeErr
}

func (j *Journal) closeStores() error {
	var errs []error
	if j.disk != nil {
		errs = append(errs, j.disk.Close())
	}
	if j.ballot != nil {
		errs = append(errs, j.ballot.Close())
	}
	if j.lock != nil {
		errs = append(errs, j.lock.Close())
	}
	return errors.Join(errs...)
}

// lockFile keeps a second process out of the directory.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("in use by another agent (%s): stop it, or give this one a directory of its own: %w", path, err), f.Close())
	}
	return f, nil
}
